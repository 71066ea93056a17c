-- checkout_describe_whole: what checkout_describe_orders says, of orders that say more: each as order_get shows it.

create or replace function checkout_describe_whole(
  checkout_group_id uuid,
  is_ours boolean,
  out orders json,
  out event_orders json,
  out vendor_store_ids uuid[],
  out order_ids uuid[],
  out confirmed_totals json,
  out line_count bigint,
  out turned_down bigint
)
language plpgsql
stable
as $$
declare
  v_orders vendor_orders[];
begin
  select array_agg(own order by own.vendor_store_id, own.id), coalesce(array_agg(own.vendor_store_id order by own.vendor_store_id, own.id), '{}'),
         coalesce(array_agg(own.id order by own.vendor_store_id, own.id), '{}'),
         checkout_totals(coalesce(sum(own.subtotal_cents), 0), coalesce(sum(own.discounts_cents), 0), coalesce(sum(own.tax_cents), 0),
                         coalesce(sum(own.transport_fee_cents), 0), coalesce(sum(own.total_cents), 0))
    into v_orders, vendor_store_ids, order_ids, confirmed_totals
    from vendor_orders as own
   where own.checkout_group_id = checkout_describe_whole.checkout_group_id
     and (not checkout_describe_whole.is_ours
          or exists (select from order_line_items as line where line.order_id = own.id and line.cart_item_id = line.id));

  orders := order_show(v_orders, true);
  select coalesce(json_agg(json_build_object(
           'items', (
             select coalesce(json_agg(json_build_object(
                      'qty', line -> 'qty', 'status', line -> 'status', 'product_id', line -> 'product_id', 'total_cents', line -> 'total_cents',
                      'tax_cents', line -> 'tax_cents', 'line_item_id', line -> 'line_item_id',
                      'attributed_token_id', line #> '{attributed_token,token_id}')), '[]')
               from json_array_elements(own -> 'items') as line),
           'status', own -> 'status', 'order_id', own -> 'order_id', 'order_number', own -> 'order_number', 'total_cents', own -> 'total_cents',
           'subtotal_cents', own -> 'subtotal_cents', 'discounts_cents', own -> 'discounts_cents', 'tax_cents', own -> 'tax_cents',
           'transport_fee_cents', own -> 'transport_fee_cents', 'shipping_tax_cents', own -> 'shipping_tax_cents',
           'vendor_store_id', own -> 'vendor_store_id', 'attributed_token_id', own #> '{attributed_token,token_id}')), '[]')
    into event_orders
    from json_array_elements(orders) as own;
  select count(*), count(*) filter (where line.status = 'rejected' and order_is_checkout_note(line.notes)) into line_count, turned_down
    from order_line_items as line
   where line.order_id = any (order_ids) and (line.cart_item_id = line.id or not checkout_describe_whole.is_ours);
end;
$$;

revoke execute on function checkout_describe_whole(uuid, boolean) from public;

comment on function checkout_describe_whole(uuid, boolean) is
  'Step of checkout_describe_orders: the orders of an anchor in JSON, whole, as the result and as the event checkout.converted show them, amounts in cents.';
