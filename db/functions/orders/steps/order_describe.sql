-- order_describe: where an order stands, and some of its lines, for events and answers.

create or replace function order_describe(vendor_order vendor_orders, line_ids uuid[])
returns jsonb
language plpgsql
stable
as $$
begin
  return (
    select jsonb_build_object(
      'order_id', (order_describe.vendor_order).id,
      'checkout_group_id', (order_describe.vendor_order).checkout_group_id,
      'cart_id', (order_describe.vendor_order).cart_id,
      'buyer_store_id', (order_describe.vendor_order).buyer_store_id,
      'vendor_store_id', (order_describe.vendor_order).vendor_store_id,
      'status', (order_describe.vendor_order).status,
      'currency', (order_describe.vendor_order).currency,
      'subtotal_cents', (order_describe.vendor_order).subtotal_cents,
      'discounts_cents', (order_describe.vendor_order).discounts_cents,
      'tax_cents', (order_describe.vendor_order).tax_cents,
      'transport_fee_cents', (order_describe.vendor_order).transport_fee_cents,
      'adjustments_cents', coalesce((order_describe.vendor_order).adjustments_cents, 0),
      'total_cents', (order_describe.vendor_order).total_cents,
      'balance_due_cents', (order_describe.vendor_order).balance_due_cents,
      'refund_due_cents', (order_describe.vendor_order).refund_due_cents,
      'expires_at', checkout_timestamp((order_describe.vendor_order).expires_at),
      'payment_intent', (
        select jsonb_build_object('payment_intent_id', intent.id, 'method', intent.method, 'status', intent.status, 'amount_cents', intent.amount_cents)
          from payment_intents as intent
         where intent.order_id = (order_describe.vendor_order).id),
      'items', (
        select coalesce(jsonb_agg(jsonb_build_object(
                 'line_item_id', line.id,
                 'product_id', line.product_id,
                 'qty', line.qty,
                 'total_cents', line.total_cents,
                 'reserved_qty', line.reserved_qty,
                 'fulfilled_qty', order_units_fulfilled(row(line.*)::order_line_items),
                 'released_qty', coalesce(line.released_qty, 0),
                 'returned_qty', coalesce(line.returned_qty, 0),
                 'left_qty', order_units_left(row(line.*)::order_line_items),
                 'left_cents', line.total_cents - order_part_cents(line.total_cents, line.qty - order_units_left(row(line.*)::order_line_items), line.qty),
                 'status', line.status) order by line.id), '[]')
          from order_line_items as line
         where line.order_id = (order_describe.vendor_order).id and line.id = any (order_describe.line_ids)))
  );
end;
$$;

revoke execute on function order_describe(vendor_orders, uuid[]) from public;

comment on function order_describe(vendor_orders, uuid[]) is
  'Step of the order functions: state and amounts (cents) of an order, its intent, and the lines named, as jsonb.';
