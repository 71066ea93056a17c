-- depends: pycheckout_0030_inventory_changes
-- cost: moment cart_records, cart_vendor_groups, cart_items
--
-- A quote says what else is owed: tax a line, shipping a vendor, and on which terms. Nullable, so that a host that names none
-- of it goes on as before; amounts take the type of the amounts beside them. No check: the rows would have to be read for one.

do $$ begin perform checkout_migration_open(); perform checkout_migration_lock('cart_records', 'cart_vendor_groups', 'cart_items'); end $$;

alter table cart_records add column if not exists tax_included boolean default false;
alter table cart_vendor_groups add column if not exists shipping_line jsonb;
alter table cart_vendor_groups add column if not exists payment_terms jsonb;
alter table cart_items add column if not exists tax_lines jsonb;

do $$
declare
  v_cents constant text := checkout_column_type('cart_vendor_groups', 'subtotal_cents');
begin
  execute format('alter table cart_vendor_groups add column if not exists shipping_cents %s', v_cents);
  execute format('alter table cart_vendor_groups add column if not exists shipping_tax_cents %s', v_cents);
  execute format('alter table cart_vendor_groups add column if not exists minimum_cents %s', v_cents);
  execute format('alter table cart_items add column if not exists tax_cents %s', checkout_column_type('cart_items', 'line_subtotal_cents'));

  -- what the validation of a quote hands on to the steps that write its orders
  if to_regtype('checkout_quote') is null then
    create type checkout_quote as (
      vendor_store_ids uuid[],
      promo_cents bigint[],
      tax_cents bigint[],
      payment_terms jsonb[],
      below_minimum_ids uuid[],
      line_count integer,
      all_ordered boolean,
      has_minimum boolean,
      says_more boolean,
      shipping_cents bigint,
      totals json
    );
  end if;
end
$$;

do $$
begin
  perform checkout_migration_close('pycheckout_0031_quote_amounts');
  perform checkout_comment(said.name, said.comment) from (values
    ('cart_records.tax_included', 'true: the prices hold their tax, so that tax figures inform and are in no total. Null is false.'),
    ('cart_vendor_groups.shipping_cents', 'What the vendor charges for shipping this order, in the total, minor units. Null: nothing is said of it.'),
    ('cart_vendor_groups.shipping_tax_cents', 'Tax on shipping_cents, minor units; in the total unless tax is included. Null: none.'),
    ('cart_vendor_groups.shipping_line', 'Names the shipping: {code, title}. Null: left out.'),
    ('cart_vendor_groups.minimum_cents', 'Least merchandise of an order of this vendor, after line discounts, before the promotion, minor units. Null: none.'),
    ('cart_vendor_groups.payment_terms', 'Terms of payment: {code, net_days}. Null: due at once.'),
    ('cart_items.tax_cents', 'Tax of the whole line after its discounts, minor units; in the total unless tax is included. Null: none is said.'),
    ('cart_items.tax_lines', 'What tax_cents is made of: [{code, title, rate, amount_cents}]. Null: left out.')
  ) as said (name, comment);
end
$$;

comment on type checkout_quote is 'A quote that was validated, for the steps that write its orders. Arrays have an element for each of vendor_store_ids.';
comment on column checkout_quote.vendor_store_ids is 'Vendors that something is ordered from; null: none.';
comment on column checkout_quote.promo_cents is 'The promotion''s share in the group of each, minor units.';
comment on column checkout_quote.tax_cents is 'Tax of the ordered lines of each, minor units, whether it is in the total or not. Null: no line has tax.';
comment on column checkout_quote.payment_terms is 'Terms of payment of each; null: due at once.';
comment on column checkout_quote.below_minimum_ids is 'Those of them whose quote is below their minimum. Null: none.';
comment on column checkout_quote.line_count is 'Number of lines that are ordered.';
comment on column checkout_quote.all_ordered is 'Whether no vendor of the cart is left out.';
comment on column checkout_quote.has_minimum is 'Whether any of them has a minimum.';
comment on column checkout_quote.says_more is 'Whether it says something of tax, shipping, a minimum or terms; null: no.';
comment on column checkout_quote.shipping_cents is 'What its groups charge for shipping, minor units. Null: none of them says anything of it.';
comment on column checkout_quote.totals is 'What was quoted, as the result shows it, if there is more to show than lines and discounts. Null: there is not.';
