-- The bucket `files` of supabase/config.toml: everybody has a folder named by their id, and no access to any other.
-- (No `comment on policy` here: on hosted Supabase the table belongs to the storage service, and only its owner may comment.)
create policy "People read the files in their own folder"
on storage.objects for select to authenticated
using (bucket_id = 'files' and (storage.foldername(name))[1] = (select auth.uid())::text);

create policy "People add files to their own folder"
on storage.objects for insert to authenticated
with check (bucket_id = 'files' and (storage.foldername(name))[1] = (select auth.uid())::text);

create policy "People replace the files in their own folder"
on storage.objects for update to authenticated
using (bucket_id = 'files' and (storage.foldername(name))[1] = (select auth.uid())::text)
with check (bucket_id = 'files' and (storage.foldername(name))[1] = (select auth.uid())::text);

create policy "People delete the files in their own folder"
on storage.objects for delete to authenticated
using (bucket_id = 'files' and (storage.foldername(name))[1] = (select auth.uid())::text);
