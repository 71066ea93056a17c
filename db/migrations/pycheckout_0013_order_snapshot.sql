-- depends: pycheckout_0012_order_buyer_index
-- cost: moment vendor_orders
--
-- An order carries what the checkout confirmed and what its vendor group said. Nullable, since the orders of
-- the earlier system have none of it.

do $$
declare
  -- a fresh install has one index for both, a host that has one already keeps it
  v_one_for_both constant boolean := exists (
    select from pg_index where indexrelid = to_regclass('idx_vendor_orders_checkout_group_id') and indisunique);
begin
  perform checkout_migration_open();
  perform checkout_index_confirm('pycheckout_0008_order_anchor_index', 'idx_vendor_orders_checkout_group_id', 'vendor_orders',
                                 case when v_one_for_both then 'checkout_group_id, vendor_store_id' else 'checkout_group_id' end, v_one_for_both);
  perform checkout_index_confirm('pycheckout_0009_cart_anchor_index', 'idx_cart_records_checkout_group_id', 'cart_records', 'checkout_group_id', true,
                                 'checkout_group_id IS NOT NULL');
  perform checkout_index_confirm('pycheckout_0010_order_cart_index', 'idx_vendor_orders_cart_id', 'vendor_orders', 'cart_id', false);
  perform checkout_index_confirm('pycheckout_0011_order_vendor_index', 'idx_vendor_orders_vendor_store_id_created_at_id', 'vendor_orders',
                                 'vendor_store_id, created_at, id', false);
  perform checkout_index_confirm('pycheckout_0012_order_buyer_index', 'idx_vendor_orders_buyer_store_id_created_at_id', 'vendor_orders',
                                 'buyer_store_id, created_at, id', false);
  perform checkout_migration_lock('vendor_orders');
end
$$;

alter table vendor_orders add column if not exists currency text;
alter table vendor_orders add column if not exists shipping_address address_t;
alter table vendor_orders add column if not exists warnings jsonb;
alter table vendor_orders add column if not exists promo jsonb;
alter table vendor_orders add column if not exists payment_method payment_method;
alter table vendor_orders add column if not exists shipping_line jsonb;
alter table vendor_orders add column if not exists attributed_token jsonb;

do $$
begin
  -- the column gets its new name with migration drop_checkout_groups
  execute format('alter table vendor_orders add column if not exists promo_discount_cents %s',
                 coalesce(checkout_column_type('vendor_orders', 'discounts_cents'), checkout_column_type('vendor_orders', 'discount_cents')));
  -- Every row of ours has its cart. A check binds each later update of an old row too, so it looks only at rows that
  -- carry our address; on a column of the host there would be no telling them apart.
  if not exists (select from checkout_objects_before where kind = 'column' and table_name = 'vendor_orders' and name = 'shipping_address') then
    alter table vendor_orders
      add constraint vendor_orders_cart_id_set check (cart_id is not null or num_nonnulls(shipping_address) = 0) not valid;
  end if;
  perform checkout_migration_close('pycheckout_0013_order_snapshot');
  perform checkout_comment(said.name, said.comment) from (values
    ('vendor_orders.currency', 'ISO 4217 code; every _cents column counts its minor units. Null: an order of the earlier system.'),
    ('vendor_orders.shipping_address', 'Address that the checkout confirmed; checkout_erase() blanks it. Null: an order of the earlier system.'),
    ('vendor_orders.warnings', 'Warnings of the vendor group, and those of the checkout: [{type, message}]. Null: an order of the earlier system.'),
    ('vendor_orders.promo', 'Promotion of the vendor group: {code, amount_cents}. Null: none.'),
    ('vendor_orders.promo_discount_cents',
     'Share of the promotion in discounts_cents, minor units, as the checkout wrote it; less once it is larger than what is left of the order. '
     'Null: an order of the earlier system.'),
    ('vendor_orders.payment_method', 'Method that the checkout confirmed. Null: an order of the earlier system.'),
    ('vendor_orders.shipping_line', 'Shipping selection, in no total: {code, title, price_cents}. Null: none.'),
    ('vendor_orders.attributed_token', 'Claims of the ad token that this order is attributed to. Null: to none.')
  ) as said (name, comment);
end
$$;
