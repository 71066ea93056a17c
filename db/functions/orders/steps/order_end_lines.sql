-- order_end_lines: open lines of a locked order end, as rejected or fulfilled, and the order follows.
--
-- Amounts as in a checkout: an ended line that is rejected takes exactly its own figures with it, and the promotion's
-- share is capped at what is left. An order without any line left owes nothing. An intent that is under way keeps its
-- amount: it tells what was charged, and the event tells the host what is too much.

create or replace function order_end_lines(vendor_order vendor_orders, line_ids uuid[], line_status line_item_status, reason text)
returns vendor_orders
language plpgsql
as $$
declare
  v_order vendor_orders := order_end_lines.vendor_order;
  v_now timestamptz;
  v_lines record;
  v_promo numeric;
  v_total numeric;
begin
  perform inventory_return(order_end_lines.line_ids, order_end_lines.line_status = 'rejected');
  v_now := clock_timestamp();

  update order_line_items as line
     set status = order_end_lines.line_status,
         notes = case when order_end_lines.line_status = 'rejected' then order_end_lines.reason else line.notes end,
         updated_at = v_now
   where line.id = any (order_end_lines.line_ids);

  select count(*) filter (where line.status <> 'rejected') as kept,
         count(*) filter (where line.status = 'fulfilled') as fulfilled,
         coalesce(sum(line.line_subtotal_cents) filter (where line.status <> 'rejected'), 0) as subtotal,
         coalesce(sum(line.discount_cents) filter (where line.status <> 'rejected'), 0) as discounts,
         coalesce(sum(line.discount_cents) filter (where line.status <> 'rejected' or line.id = any (order_end_lines.line_ids)), 0) as discounts_before,
         coalesce(sum(line.total_cents) filter (where line.status <> 'rejected'), 0) as total
    into v_lines
    from order_line_items as line
   where line.order_id = v_order.id;

  if v_lines.kept = 0 then
    v_order.tax_cents := 0;
    v_order.transport_fee_cents := 0;
  end if;
  v_promo := least(v_order.discounts_cents - v_lines.discounts_before, v_lines.total);
  v_total := v_lines.total - v_promo + v_order.tax_cents + v_order.transport_fee_cents;

  update vendor_orders as ended
     set status = case
                    when v_order.status not in ('created_pending', 'accepted', 'partially_accepted', 'partially_fulfilled', 'hold') then v_order.status
                    when v_lines.kept = 0 then 'rejected'
                    when v_lines.fulfilled = v_lines.kept then 'fulfilled'
                    when v_lines.fulfilled > 0 then 'partially_fulfilled'
                    when v_order.status = 'accepted' then 'partially_accepted'
                    else v_order.status
                  end,
         subtotal_cents = v_lines.subtotal,
         discounts_cents = v_lines.discounts + v_promo,
         tax_cents = v_order.tax_cents,
         transport_fee_cents = v_order.transport_fee_cents,
         total_cents = v_total,
         balance_due_cents = greatest(v_order.balance_due_cents - (v_order.total_cents - v_total), 0),
         updated_at = v_now
   where ended.id = v_order.id
  returning ended.* into v_order;

  update payment_intents as intent
     set amount_cents = v_order.total_cents,
         updated_at = v_now
   where intent.order_id = v_order.id and intent.status = 'unpaid' and intent.amount_cents <> v_order.total_cents;

  return v_order;
end;
$$;

revoke execute on function order_end_lines(vendor_orders, uuid[], line_item_status, text) from public;

comment on function order_end_lines(vendor_orders, uuid[], line_item_status, text) is
  'Step of the order functions: ends open lines of a locked order as rejected (stock goes back, amounts in cents come off) or '
  'fulfilled (stock leaves), and writes the order''s state and amounts and its unpaid intent.';
