-- Carts that cannot be checked out, since nothing of a foreign order may be billed or shown. Carts are read once: in no index
-- is their status.
select cart.id::text as subject,
       format('is active, and its checkout_group_id %s carries orders already: it cannot be checked out', cart.checkout_group_id) as problem,
       format('update cart_records set checkout_group_id = null where id = %L;', cart.id) as remedy
  from cart_records as cart
 where cart.status = 'active' and cart.checkout_group_id is not null
   and exists (select from vendor_orders as vendor_order where vendor_order.checkout_group_id = cart.checkout_group_id)
 order by cart.id
 limit 20
