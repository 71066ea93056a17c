-- order_end_lines: lines of a locked order end, as rejected or fulfilled, and the order follows.
--
-- What a line holds and what an order comes to are read from where the checkout and these functions wrote them, never from
-- a status that the host may write, and never by adding lines up again: a line that is rejected takes exactly its own
-- figures off, and the promotion's share is capped at what is left. Lines of the host's own count nowhere. An order without
-- any line left owes nothing. An intent that is under way keeps its amount: it tells what was charged, and the event
-- tells the host what is too much.

create or replace function order_end_lines(vendor_order vendor_orders, line_ids uuid[], line_status line_item_status, reason text)
returns vendor_orders
language plpgsql
as $$
declare
  v_order vendor_orders := order_end_lines.vendor_order;
  v_before constant vendor_orders := order_end_lines.vendor_order;
  v_now timestamptz;
  v_off record;
  v_left record;
  v_lines_total numeric;
  v_rows bigint;
begin
  perform inventory_return(v_order.cart_id, order_end_lines.line_ids, order_end_lines.line_status = 'rejected');
  -- not before the last change of the order: its events are sent in this order, whatever the clock does
  v_now := greatest(clock_timestamp(), v_order.updated_at + interval '1 microsecond');

  update order_line_items as line
     set status = order_end_lines.line_status,
         reserved_qty = 0,
         notes = case when order_end_lines.line_status = 'rejected' then order_end_lines.reason else line.notes end,
         updated_at = v_now
   where line.id = any (order_end_lines.line_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(order_end_lines.line_ids) then
    perform checkout_raise_rows(v_order.cart_id, 'order_line_items', cardinality(order_end_lines.line_ids), v_rows);
  end if;

  select coalesce(sum(line.line_subtotal_cents), 0) as subtotal, coalesce(sum(line.total_cents), 0) as total
    into v_off
    from order_line_items as line
   where line.id = any (order_end_lines.line_ids) and order_end_lines.line_status = 'rejected';
  select count(*) as kept, count(*) filter (where line.status = 'fulfilled' and line.reserved_qty = 0) as fulfilled
    into v_left
    from order_line_items as line
   where line.order_id = v_order.id and line.cart_item_id = line.id and (line.reserved_qty > 0 or line.status <> 'rejected');

  if v_left.kept = 0 then
    v_order.subtotal_cents := 0;
    v_order.promo_discount_cents := 0;
    v_order.tax_cents := 0;
    v_order.transport_fee_cents := 0;
    v_lines_total := 0;
  else
    v_order.subtotal_cents := v_before.subtotal_cents - v_off.subtotal;
    v_lines_total := v_before.total_cents::numeric - v_before.tax_cents - v_before.transport_fee_cents + v_before.promo_discount_cents - v_off.total;
    v_order.promo_discount_cents := least(v_before.promo_discount_cents, v_lines_total);
  end if;
  v_order.total_cents := v_lines_total - v_order.promo_discount_cents + v_order.tax_cents + v_order.transport_fee_cents;

  update vendor_orders as ended
     set status = case
                    when v_order.status not in ('created_pending', 'accepted', 'partially_accepted', 'partially_fulfilled', 'hold') then v_order.status
                    when v_left.kept = 0 then 'rejected'
                    when v_left.fulfilled = v_left.kept then 'fulfilled'
                    when v_left.fulfilled > 0 then 'partially_fulfilled'
                    when v_order.status = 'accepted' then 'partially_accepted'
                    else v_order.status
                  end,
         subtotal_cents = v_order.subtotal_cents,
         discounts_cents = v_order.subtotal_cents - (v_lines_total - v_order.promo_discount_cents),
         promo_discount_cents = v_order.promo_discount_cents,
         tax_cents = v_order.tax_cents,
         transport_fee_cents = v_order.transport_fee_cents,
         total_cents = v_order.total_cents,
         balance_due_cents = greatest(v_order.balance_due_cents - (v_before.total_cents - v_order.total_cents), 0),
         updated_at = v_now
   where ended.id = v_order.id
  returning ended.* into v_order;
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows(v_before.cart_id, 'vendor_orders', 1, v_rows);
  end if;

  update payment_intents as intent
     set amount_cents = v_order.total_cents,
         updated_at = v_now
   where intent.order_id = v_order.id and intent.status = 'unpaid' and intent.amount_cents <> v_order.total_cents;

  return payment_settle(v_order);
end;
$$;

revoke execute on function order_end_lines(vendor_orders, uuid[], line_item_status, text) from public;

comment on function order_end_lines(vendor_orders, uuid[], line_item_status, text) is
  'Step of the order functions: ends lines of a locked order as rejected (stock goes back, amounts in cents come off) or '
  'fulfilled (stock leaves), and writes the order''s state and amounts and its unpaid intent. Raises OC007 if a trigger keeps a row from being written, OC005 if a sum of payments does not fit.';
