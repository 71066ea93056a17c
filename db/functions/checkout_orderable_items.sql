-- checkout_orderable_items: the lines of a cart that can become order lines.
--
-- An item counts if it and its vendor's group are ok. Read under the cart lock; a plain SQL function without settings
-- of its own, so that the planner folds it into the query that asks.

create or replace function checkout_orderable_items(cart_id uuid)
returns setof cart_items
language sql
stable
as $$
  select item.*
    from cart_items as item
    join cart_vendor_groups as vendor
      on vendor.cart_id = item.cart_id
     and vendor.vendor_store_id = item.vendor_store_id
   where item.cart_id = checkout_orderable_items.cart_id
     and item.status = 'ok'
     and vendor.status = 'ok';
$$;

revoke execute on function checkout_orderable_items(uuid) from public;

comment on function checkout_orderable_items(uuid) is 'Items of a cart that can be ordered: ok, in a vendor group that is ok.';
