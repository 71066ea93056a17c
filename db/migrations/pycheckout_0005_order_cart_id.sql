-- depends: pycheckout_0004_name_active_lines
-- cost: moment vendor_orders, cart_records
--
-- An order says which cart it came from. A plain value without a foreign key: carts may be purged, orders stay.

do $$ begin perform checkout_migration_open(); perform checkout_migration_lock('vendor_orders', 'cart_records'); end $$;

alter table vendor_orders add column if not exists cart_id uuid;

do $$
begin
  perform checkout_migration_close('pycheckout_0005_order_cart_id');
  perform checkout_comment('vendor_orders.cart_id', 'Cart that this order came from. Null only on orders of the earlier system whose cart was unknown.');
  -- checkout_groups keeps the pair, so a value that stands there too is not lost with the column
  if to_regclass('checkout_groups') is not null then
    update checkout_ledger
       set definition = 'cart_id is not null and not exists (select from checkout_groups as anchor '
                        'where anchor.id = vendor_orders.checkout_group_id and anchor.cart_id = vendor_orders.cart_id)'
     where kind = 'column' and table_name = 'vendor_orders' and name = 'cart_id';
  end if;
  -- for the five migrations that build them
  perform checkout_index_prepare('pycheckout_0005_order_cart_id', 'vendor_orders', 'idx_vendor_orders_checkout_group_id');
  perform checkout_index_prepare('pycheckout_0005_order_cart_id', 'cart_records', 'idx_cart_records_checkout_group_id');
  perform checkout_index_prepare('pycheckout_0005_order_cart_id', 'vendor_orders', 'idx_vendor_orders_cart_id');
  perform checkout_index_prepare('pycheckout_0005_order_cart_id', 'vendor_orders', 'idx_vendor_orders_vendor_store_id_created_at_id');
  perform checkout_index_prepare('pycheckout_0005_order_cart_id', 'vendor_orders', 'idx_vendor_orders_buyer_store_id_created_at_id');
end
$$;
