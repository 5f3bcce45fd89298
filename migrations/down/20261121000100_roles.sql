-- The role belongs to the cluster: while another database of it still grants something to the role, it stays.
do $$
begin
    drop role if exists gateway_service;
exception
    when dependent_objects_still_exist then
        raise notice 'The role gateway_service stays, because another database of this cluster uses it.';
end
$$;
