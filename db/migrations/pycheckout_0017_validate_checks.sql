-- depends: pycheckout_0016_inventory
-- cost: scan vendor_orders, inventory_items
--
-- The checks that came with the columns, over the rows that were there: a scan under a lock that stops no writer.

do $$
declare
  v_check record;
begin
  perform checkout_migration_pin();
  perform checkout_migration_wait();
  -- a loop, because every check takes an ALTER TABLE
  for v_check in
    select conrelid::regclass as owner, conname
      from pg_constraint
     where conrelid in ('vendor_orders'::regclass, 'cart_items'::regclass, 'inventory_items'::regclass)
       and conname in ('vendor_orders_cart_id_set', 'cart_items_gross_adds_up', 'inventory_items_split_stock_in_slots') and not convalidated
  loop
    execute format('alter table %s validate constraint %I', v_check.owner, v_check.conname);
  end loop;
end
$$;
