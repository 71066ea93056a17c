-- order_end_due: ends locked orders as expired: their stock goes back in one go, and nothing of them is owed any more.
--
-- They come to what a cancel leaves of an order. A credit or a surcharge goes with the rest, and the change notes it.

create or replace function order_end_due(ids uuid[])
returns void
language plpgsql
as $$
declare
  v_line_ids uuid[];
  v_held integer[];
  v_before jsonb;
  v_time timestamptz;
  v_order vendor_orders;
  v_lines jsonb;
  v_own uuid[];
  v_was jsonb;
  v_rows bigint;
begin
  if order_end_due.ids = '{}' then
    return;
  end if;
  select coalesce(array_agg(line.id order by line.id), '{}'), coalesce(array_agg(line.reserved_qty order by line.id), '{}')
    into v_line_ids, v_held
    from order_line_items as line
   where line.order_id = any (order_end_due.ids) and line.cart_item_id = line.id and line.reserved_qty > 0;
  select jsonb_object_agg(due.id, jsonb_build_object('expires_at', due.expires_at, 'total_cents', due.total_cents, 'adjustments_cents', due.adjustments_cents))
    into v_before
    from vendor_orders as due
   where due.id = any (order_end_due.ids);

  perform inventory_return(null, v_line_ids, true);
  v_time := clock_timestamp();

  update order_line_items as line
     set status = 'rejected',
         released_qty = coalesce(line.released_qty, 0) + line.reserved_qty,
         reserved_qty = 0,
         notes = 'Not paid in time.',
         updated_at = v_time
   where line.id = any (v_line_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_line_ids) then
    perform checkout_raise_rows(null, 'order_line_items', cardinality(v_line_ids), v_rows);
  end if;

  -- not before the last change of an order: its events are sent in this order, whatever the clock does
  update vendor_orders as due
     set status = 'expired',
         updated_at = greatest(v_time, due.updated_at + interval '1 microsecond'),
         subtotal_cents = 0,
         discounts_cents = 0,
         promo_discount_cents = 0,
         tax_cents = 0,
         transport_fee_cents = 0,
         shipping_tax_cents = case when due.shipping_tax_cents is not null then 0 end,
         adjustments_cents = null,
         total_cents = 0,
         balance_due_cents = 0,
         refund_due_cents = case when due.refund_due_cents is not null then 0 end,
         expires_at = null
   where due.id = any (order_end_due.ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(order_end_due.ids) then
    perform checkout_raise_rows(null, 'vendor_orders', cardinality(order_end_due.ids), v_rows);
  end if;
  update payment_intents as intent
     set amount_cents = 0, updated_at = v_time
   where intent.order_id = any (order_end_due.ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(order_end_due.ids) then
    perform checkout_raise_rows(null, 'payment_intents', cardinality(order_end_due.ids), v_rows);
  end if;

  -- a loop, because each order has an event of its own
  for v_order in select due.* from vendor_orders as due where due.id = any (order_end_due.ids) order by due.id loop
    v_was := v_before -> v_order.id::text;
    select coalesce(jsonb_agg(jsonb_build_object('line_item_id', line.id, 'released_qty', held.qty) order by line.id), '[]'),
           coalesce(array_agg(line.id order by line.id), '{}')
      into v_lines, v_own
      from order_line_items as line
      join unnest(v_line_ids, v_held) as held (id, qty) on held.id = line.id
     where line.order_id = v_order.id;
    perform order_write_deadline(
      v_order, 'expired', v_lines, -nullif((v_was ->> 'adjustments_cents')::numeric, 0)::bigint, v_own,
      jsonb_build_object('expires_at', checkout_timestamp((v_was ->> 'expires_at')::timestamptz)));
  end loop;
end;
$$;

revoke execute on function order_end_due(uuid[]) from public;

comment on function order_end_due(uuid[]) is
  'Step of vendor_orders_expire: ends locked orders and their lines as expired, gives their stock back, and writes the change and the event of each. '
  'Raises OC007 if a trigger keeps a row from being written, OC012 if less stock is reserved.';
