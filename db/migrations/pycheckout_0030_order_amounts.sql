-- depends: pycheckout_0029_quote_amounts
-- cost: moment vendor_orders, order_line_items, payment_intents
--
-- An order carries what its quote said of tax, shipping and terms, what the buyer refers to it by, and a number. A line
-- counts its units: held + fulfilled + released = qty. Null on the orders of the earlier system.
--
-- Numbers come from one sequence a schema, drawn before the INSERT: the column has no default. A column of that name which
-- the host has already stays the host's, with its default and its indexes.

do $$ begin perform checkout_migration_open(); perform checkout_migration_lock('vendor_orders', 'order_line_items', 'payment_intents'); end $$;

alter table vendor_orders add column if not exists tax_included boolean;
alter table vendor_orders add column if not exists vendor_shipping_line jsonb;
alter table vendor_orders add column if not exists billing_address address_t;
alter table vendor_orders add column if not exists purchase_order text collate "C";
alter table vendor_orders add column if not exists metadata jsonb;
alter table vendor_orders add column if not exists order_number bigint;
alter table vendor_orders add column if not exists expires_at timestamptz;
alter table order_line_items add column if not exists tax_lines jsonb;
alter table order_line_items add column if not exists fulfilled_qty integer;
alter table order_line_items add column if not exists released_qty integer;
alter table order_line_items add column if not exists returned_qty integer;
alter table payment_intents add column if not exists payment_terms jsonb;
alter table payment_intents add column if not exists due_at timestamptz;

do $$
declare
  v_cents constant text := checkout_column_type('vendor_orders', 'total_cents');
begin
  execute format('alter table vendor_orders add column if not exists shipping_tax_cents %s', v_cents);
  execute format('alter table vendor_orders add column if not exists adjustments_cents %s', v_cents);
  execute format('alter table vendor_orders add column if not exists refund_due_cents %s', v_cents);
  execute format('alter table order_line_items add column if not exists tax_cents %s', checkout_column_type('order_line_items', 'total_cents'));

  if to_regclass('checkout_order_number_seq') is null
     and not exists (select from checkout_objects_before where kind = 'column' and table_name = 'vendor_orders' and name = 'order_number') then
    create sequence checkout_order_number_seq as bigint owned by vendor_orders.order_number;
    perform checkout_table_private('checkout_order_number_seq');
  end if;

  perform checkout_migration_close('pycheckout_0030_order_amounts');
  perform checkout_comment(said.name, said.comment) from (values
    ('vendor_orders.tax_included', 'true: the prices hold their tax, and tax_cents is in no total. Null: they do not, or the order is of the earlier system.'),
    ('vendor_orders.vendor_shipping_line', 'Shipping that transport_fee_cents is for: {code, title}. Null: none is named.'),
    ('vendor_orders.shipping_tax_cents', 'Tax on transport_fee_cents, part of tax_cents, minor units. Null: none.'),
    ('vendor_orders.billing_address', 'Address of the invoice; checkout_erase() blanks it. Null: the shipping address.'),
    ('vendor_orders.purchase_order', 'The buyer''s reference, as the checkout was given it. Null: none.'),
    ('vendor_orders.metadata', 'What the host noted at the checkout, a JSON object. Null: nothing.'),
    ('vendor_orders.order_number', 'Number that people call the order by, unique in the schema; numbers may be missing. Null: an order of the earlier system.'),
    ('vendor_orders.expires_at', 'When it ends unless it is paid for; vendor_orders_expire() ends it. Null: never, or no more.'),
    ('vendor_orders.adjustments_cents', 'Sum of its credits (below 0) and surcharges, part of the total, minor units. Null: none.'),
    ('vendor_orders.refund_due_cents', 'What was paid beyond the total and not given back, minor units. Null: no payment was recorded.'),
    ('order_line_items.tax_cents', 'Tax of the whole line, minor units. A rejected line keeps it. Null: none is said.'),
    ('order_line_items.tax_lines', 'What tax_cents is made of: [{code, title, rate, amount_cents}]. Null: left out.'),
    ('order_line_items.fulfilled_qty', 'Units that were shipped, those that came back too. Null: none.'),
    ('order_line_items.released_qty', 'Units that were turned down, by the checkout or since. Null: none.'),
    ('order_line_items.returned_qty', 'Units that were shipped and came back. Null: none.'),
    ('payment_intents.payment_terms', 'Terms of payment of the quote: {code, net_days}. Null: due at once.'),
    ('payment_intents.due_at', 'When it is due by its terms. Null: at once.')
  ) as said (name, comment);

  -- for the four migrations that build them
  perform checkout_index_prepare('pycheckout_0030_order_amounts', 'vendor_orders', 'idx_vendor_orders_order_number');
  perform checkout_index_prepare('pycheckout_0030_order_amounts', 'vendor_orders', 'idx_vendor_orders_expires_at_id');
  perform checkout_index_prepare('pycheckout_0030_order_amounts', 'vendor_orders', 'idx_vendor_orders_refund_due_cents');
  perform checkout_index_prepare('pycheckout_0030_order_amounts', 'vendor_orders', 'idx_vendor_orders_purchase_order_created_at_id');
end
$$;
