drop policy "People delete the files in their own folder" on storage.objects;
drop policy "People replace the files in their own folder" on storage.objects;
drop policy "People add files to their own folder" on storage.objects;
drop policy "People read the files in their own folder" on storage.objects;
