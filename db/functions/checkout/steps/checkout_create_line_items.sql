-- checkout_create_line_items: a line an orderable item, a copy of it down to the cent.
--
-- A line that found no stock, or whose vendor fell below its minimum, stays on the order as rejected, with the quantity and
-- amounts that were quoted.

create or replace function checkout_create_line_items(cart_id uuid, rejected_line_ids uuid[], below_minimum_line_ids uuid[], attribution jsonb, now timestamptz)
returns bigint
language plpgsql
as $$
declare
  v_rows bigint;
  v_rejected alias for rejected_line_ids;
  v_below alias for below_minimum_line_ids;
  v_attributed constant jsonb := checkout_create_line_items.attribution -> 'product';
  v_short_warning constant jsonb := '[{"type": "insufficient_inventory", "message": "Rejected: there was not enough stock."}]'::jsonb;
  v_below_warning constant jsonb := '[{"type": "below_minimum", "message": "Rejected: the order would have been below its vendor''s minimum."}]'::jsonb;
begin
  insert into order_line_items (
    id, order_id, cart_item_id, product_id, name, category, unit, unit_price_cents, qty, moq, max_qty,
    line_subtotal_cents, discount_cents, total_cents, tax_cents, tax_lines, reserved_qty, released_qty, status, notes, warnings, applied_volume_discount, attributed_token,
    created_at, updated_at)
  select item.id, vendor.id, item.id, item.product_id, coalesce(nullif(item.title, ''), item.product_id::text), item.category, item.unit,
         item.unit_price_cents, item.quantity, item.moq, item.max_qty,
         item.line_subtotal_cents,
         cart_line_discount_cents(item.line_discounts_cents, item.line_total_cents),
         coalesce(item.line_total_cents, item.line_subtotal_cents),
         item.tax_cents, nullif(item.tax_lines, 'null'),
         case when item.id <> all (v_rejected) then item.quantity else 0 end,
         case when item.id = any (v_rejected) then item.quantity end,
         case when item.id <> all (v_rejected) then 'pending'::line_item_status else 'rejected'::line_item_status end,
         case when item.id = any (v_rejected) then case when item.id = any (v_below) then 'below_minimum' else 'insufficient_inventory' end end,
         coalesce(nullif(item.warnings, 'null'), '[]')
         || case when item.id <> all (v_rejected) then '[]' when item.id = any (v_below) then v_below_warning else v_short_warning end,
         nullif(item.applied_volume_discount, 'null'),
         v_attributed -> item.product_id::text,
         checkout_create_line_items.now, checkout_create_line_items.now
    from cart_items as item
    join cart_vendor_groups as vendor on vendor.cart_id = item.cart_id and vendor.vendor_store_id = item.vendor_store_id
   where item.cart_id = checkout_create_line_items.cart_id and item.status = 'ok' and vendor.status = 'ok';
  get diagnostics v_rows = row_count;
  return v_rows;
end;
$$;

revoke execute on function checkout_create_line_items(uuid, uuid[], uuid[], jsonb, timestamptz) from public;

comment on function checkout_create_line_items(uuid, uuid[], uuid[], jsonb, timestamptz) is
  'Step of checkout_execute: writes the order lines of a cart; the rejected ones with status rejected, notes insufficient_inventory or below_minimum and nothing reserved; and returns their number.';
