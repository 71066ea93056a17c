-- inventory_was_changed: whether a change of stock was made under its key before; if not, notes that it is made now.
--
-- Called under the product's lock, so of two at once the second one finds the key. A purge that deletes it meanwhile was
-- told that it is old enough to be forgotten.

create or replace function inventory_was_changed(product_id uuid, delta integer, change_key text)
returns boolean
language plpgsql
as $$
declare
  v_delta integer;
begin
  if inventory_was_changed.change_key is null then
    return false;
  end if;
  select change.delta into v_delta
    from inventory_changes as change
   where change.product_id = inventory_was_changed.product_id and change.change_key = inventory_was_changed.change_key;
  if not found then
    insert into inventory_changes (product_id, change_key, delta, created_at)
    values (inventory_was_changed.product_id, inventory_was_changed.change_key, inventory_was_changed.delta, clock_timestamp());
    if not found then
      perform checkout_raise_rows(null, 'inventory_changes', 1, 0);
    end if;
    return false;
  end if;

  if v_delta <> inventory_was_changed.delta then
    raise exception 'the change key is already bound to another change of product %', inventory_was_changed.product_id
      using errcode = 'OC006',
            detail = jsonb_build_object('product_id', inventory_was_changed.product_id, 'delta', inventory_was_changed.delta, 'bound_delta', v_delta),
            hint = 'Send the change that the key was first used for, or take a new key.';
  end if;
  return true;
end;
$$;

revoke execute on function inventory_was_changed(uuid, integer, text) from public;

comment on function inventory_was_changed(uuid, integer, text) is
  'Step of inventory_adjust: true if the change was made under this key before, else notes the key. Raises OC006 if the key is that of another delta, OC007 if a trigger keeps it from being written.';
