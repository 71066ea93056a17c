-- inventory_changes_purge: retention of the keys of stock changes. A change that is repeated under a key that is gone is made again.
--
-- As checkout_requests_purge does it: the oldest first, by an index, and nothing that is locked.

create or replace function inventory_changes_purge(older_than interval, max_rows integer default 10000)
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_cutoff constant timestamptz := checkout_cutoff(inventory_changes_purge.older_than, inventory_changes_purge.max_rows);
  v_product_ids uuid[];
  v_keys text[];
  v_deleted bigint;
begin
  select array_agg(old.product_id), array_agg(old.change_key) into v_product_ids, v_keys
    from (select change.product_id, change.change_key
            from inventory_changes as change
           where change.created_at < v_cutoff
           order by change.created_at
           limit inventory_changes_purge.max_rows
             for update skip locked) as old;

  delete from inventory_changes as change
   using unnest(v_product_ids, v_keys) as old (product_id, change_key)
   where change.product_id = old.product_id and change.change_key = old.change_key;
  get diagnostics v_deleted = row_count;
  if v_deleted <> cardinality(v_keys) then
    perform checkout_raise_rows(null, 'inventory_changes', cardinality(v_keys), v_deleted);
  end if;
  return v_deleted;
end;
$$;

revoke execute on function inventory_changes_purge(interval, integer) from public;

comment on function inventory_changes_purge(interval, integer) is
  'Deletes keys of stock changes older than the interval, the oldest first and max_rows at most, and returns how many: call it until it returns '
  '0. A change that is repeated under such a key counts once more. Keys that are locked are left for the next call. For the owner. Raises '
  'OC005 for a null or negative interval, or max_rows below 1, OC007 if a trigger keeps a row from being deleted.';
