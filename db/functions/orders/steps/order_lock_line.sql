-- order_lock_line: locks the order of a line, and with it the line. The order's lock comes first, so the line is read without
-- one for its order, and again under both.

create or replace function order_lock_line(line_id uuid)
returns vendor_orders
language plpgsql
as $$
declare
  v_order_id uuid;
begin
  select line.order_id into v_order_id from order_line_items as line where line.id = order_lock_line.line_id and line.cart_item_id = line.id;
  if not found then
    raise exception 'there is no order line % that a checkout made', order_lock_line.line_id
      using errcode = 'OC011',
            detail = jsonb_build_object('line_item_id', order_lock_line.line_id),
            hint = 'Look at the id; orders that were there before pycheckout are not its to change.';
  end if;
  return order_lock(v_order_id);
end;
$$;

revoke execute on function order_lock_line(uuid) from public;

comment on function order_lock_line(uuid) is
  'Step of the order functions: locks the order of a line, and all its lines, FOR NO KEY UPDATE and returns it. Raises OC011 if no checkout made the line.';
