-- depends: pycheckout_0012_order_buyer_index
--
-- PF-169: an order carries what the checkout confirmed and what its vendor group said. Nullable, since the orders of
-- the earlier system have none of it. Statements of the host that name vendor_orders.discount_cents end here.

do $$ begin perform checkout_migration_open(); end $$;

do $$
begin
  if checkout_column_type('vendor_orders', 'discounts_cents') is null then
    alter table vendor_orders rename column discount_cents to discounts_cents;
    -- not a new column: the twin renames it back, it must not drop it
    update checkout_objects_before set name = 'discounts_cents' where table_name = 'vendor_orders' and name = 'discount_cents';
    insert into checkout_ledger (migration, kind, table_name, name)
    values ('pycheckout_0013_order_snapshot', 'renamed_column', 'vendor_orders', 'discounts_cents');
  end if;
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
  execute format('alter table vendor_orders add column if not exists promo_discount_cents %s', checkout_column_type('vendor_orders', 'discounts_cents'));
  -- Every row of ours has its cart. A check binds each later update of an old row too, so it looks only at rows that
  -- carry our address; on a column of the host there would be no telling them apart.
  if not exists (select from checkout_objects_before where kind = 'column' and table_name = 'vendor_orders' and name = 'shipping_address') then
    alter table vendor_orders
      add constraint vendor_orders_cart_id_set check (cart_id is not null or num_nonnulls(shipping_address) = 0) not valid;
  end if;
  perform checkout_migration_close('pycheckout_0013_order_snapshot');
  perform checkout_comment(said.name, said.comment) from (values
    ('vendor_orders.discounts_cents',
     'Discounts of its lines that are not rejected, and the promotion''s share, at most what is left of them, minor units.'),
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
