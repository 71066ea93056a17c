-- depends: pycheckout_0028_outbox_unsent
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
end
$$;

do $$
begin
  perform checkout_migration_close('pycheckout_0029_quote_amounts');
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
