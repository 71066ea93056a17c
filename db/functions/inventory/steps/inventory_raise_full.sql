-- inventory_raise_full: names the product whose stock row cannot hold more reserved units.

create or replace function inventory_raise_full(cart_id uuid, vendor_store_ids uuid[])
returns void
language plpgsql
stable
as $$
declare
  v_full record;
begin
  select wanted.product_id, wanted.qty, stock.reserved_qty into v_full
    from (select item.product_id, sum(item.quantity) as qty
            from cart_items as item
           where item.cart_id = inventory_raise_full.cart_id and item.status = 'ok'
             and item.vendor_store_id = any (inventory_raise_full.vendor_store_ids)
           group by item.product_id) as wanted
    join (select item.product_id, item.reserved_qty from inventory_items as item
           union all
          select slot.product_id, slot.reserved_qty from inventory_slots as slot) as stock on stock.product_id = wanted.product_id
   order by wanted.qty + stock.reserved_qty desc, wanted.product_id
   limit 1;
  perform cart_raise_inconsistent(inventory_raise_full.cart_id, jsonb_build_object(
    'problem', 'reserved_qty', 'product_id', v_full.product_id, 'requested', v_full.qty, 'reserved', v_full.reserved_qty));
end;
$$;

revoke execute on function inventory_raise_full(uuid, uuid[]) from public;

comment on function inventory_raise_full(uuid, uuid[]) is
  'Step of checkout_execute: raises OC007 with the product of a cart whose stock row cannot count what would be reserved.';
