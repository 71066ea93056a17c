-- order_get: one vendor order, for its buyer or its vendor.

create or replace function order_get(order_id uuid, buyer_store_id uuid default null, vendor_store_id uuid default null)
returns json
language plpgsql
stable
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
  return order_show(array[order_find(order_get.order_id, order_get.buyer_store_id, order_get.vendor_store_id)], true) -> 0;
end;
$$;

revoke execute on function order_get(uuid, uuid, uuid) from public;

comment on function order_get(uuid, uuid, uuid) is
  'One vendor order, to its buyer or its vendor: what checkout_result shows of it in vendor_orders, amounts in cents, lines and payment intent '
  'included, and its checkout_group_id, cart_id, buyer_store_id, vendor_store_id, currency, shipping_address, billing_address, payment_method, shipping_line, '
  'purchase_order, metadata, tax_included, tax_cents, transport_fee_cents, shipping_tax_cents, adjustments_cents, refund_due_cents, vendor_shipping_line, '
  'expires_at, line_count, created_at and updated_at. Orders of the earlier system are shown too, with null for what they lack. Give the buyer, the vendor, or both, '
  'who must then both be right. Locks nothing, writes nothing. Raises OC005 without an order id, or without either store, OC011 for an '
  'unknown order or somebody else''s.';
