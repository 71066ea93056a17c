-- order_check_key: the change of an order that was made under a key; null if there is none yet. Asked right after the order's
-- lock and before any state is looked at: of two at once the second one finds the key, and a repeat is answered
-- whatever became of the order meanwhile.

create or replace function order_check_key(order_id uuid, change_key text, request_hash bytea)
returns order_changes
language plpgsql
stable
as $$
declare
  v_change order_changes;
begin
  select change.* into v_change
    from order_changes as change
   where change.order_id = order_check_key.order_id and change.change_key = order_check_key.change_key;
  if found and v_change.request_hash is distinct from order_check_key.request_hash then
    raise exception 'the change key is already bound to another change of order %', order_check_key.order_id
      using errcode = 'OC006',
            detail = jsonb_build_object('order_id', order_check_key.order_id, 'bound_kind', v_change.kind),
            hint = 'Send the change that the key was first used for, or take a new key.';
  end if;
  return v_change;
end;
$$;

revoke execute on function order_check_key(uuid, text, bytea) from public;

comment on function order_check_key(uuid, text, bytea) is
  'Step of the order functions: the change made under a key, null if none was. Raises OC006 if the key is that of another request.';
