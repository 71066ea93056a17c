-- depends: pycheckout_0013_order_snapshot
-- cost: moment order_line_items, cart_vendor_groups, cart_items
--
-- An order line carries the cart line it came from. The cart side gets the two amounts that say whether a line
-- is gross (line_total_cents set) or net (null). Amounts take the type of the amounts beside them.

do $$ begin perform checkout_migration_open(); perform checkout_migration_lock('order_line_items', 'cart_vendor_groups', 'cart_items'); end $$;

alter table order_line_items add column if not exists cart_item_id uuid;
alter table order_line_items add column if not exists warnings jsonb;
alter table order_line_items add column if not exists applied_volume_discount jsonb;
alter table order_line_items add column if not exists moq integer;
alter table order_line_items add column if not exists max_qty integer;
alter table order_line_items add column if not exists attributed_token jsonb;
alter table order_line_items add column if not exists reserved_qty integer;

do $$
begin
  execute format('alter table order_line_items add column if not exists line_subtotal_cents %s', checkout_column_type('order_line_items', 'total_cents'));
  execute format('alter table cart_vendor_groups add column if not exists line_discounts_cents %s',
                 checkout_column_type('cart_vendor_groups', 'subtotal_cents'));
  execute format('alter table cart_vendor_groups add column if not exists promo_discount_cents %s',
                 checkout_column_type('cart_vendor_groups', 'subtotal_cents'));
  execute format('alter table cart_items add column if not exists line_discounts_cents %s', checkout_column_type('cart_items', 'line_subtotal_cents'));
  execute format('alter table cart_items add column if not exists line_total_cents %s', checkout_column_type('cart_items', 'line_subtotal_cents'));

  -- Old rows of a host could not be updated any more under this rule; there the checkout refuses them instead (OC007).
  if checkout_is_ours('cart_items')
     and not exists (select from pg_constraint where conrelid = 'cart_items'::regclass and conname = 'cart_items_gross_adds_up')
  then
    alter table cart_items add constraint cart_items_gross_adds_up check (
      line_total_cents is null
      or line_total_cents >= 0 and line_total_cents = line_subtotal_cents - coalesce(line_discounts_cents, 0)) not valid;
  end if;
end
$$;

do $$
begin
  perform checkout_migration_close('pycheckout_0014_line_snapshot');
  perform checkout_comment(said.name, said.comment) from (values
    ('order_line_items.cart_item_id',
     'Cart line that this order line came from; equal to its id on every line of pycheckout. Null: a line of the earlier system.'),
    ('order_line_items.warnings', 'Warnings of the cart line, and those of the checkout: [{type, message}]. Null: a line of the earlier system.'),
    ('order_line_items.applied_volume_discount', 'Describes the volume discount that the amounts have in them: {label, amount_cents}. Null: none.'),
    ('order_line_items.moq', 'Minimum order quantity of the cart line, in units. Null: a line of the earlier system.'),
    ('order_line_items.max_qty', 'Largest quantity of the cart line, in units. Null: no limit.'),
    ('order_line_items.attributed_token', 'Claims of the ad token that this line is attributed to. Null: to none.'),
    ('order_line_items.reserved_qty',
     'Units of stock that the line holds, whatever its status says: its quantity from the checkout, less what was given back or has left; 0 '
     'where the checkout rejected it. Null: not a line of pycheckout.'),
    ('order_line_items.line_subtotal_cents',
     'Subtotal of the cart line, before its discount, minor units. A rejected line keeps it. Null: a line of the earlier system.'),
    ('cart_vendor_groups.line_discounts_cents',
     'Sum of the discounts of its lines, minor units, from the quote; the checkout does not read it. Null: left out.'),
    ('cart_vendor_groups.promo_discount_cents',
     'Share of the promotion in this group, minor units, from the quote; the checkout does not read it. Null: left out.'),
    ('cart_items.line_discounts_cents',
     'Discount on line_subtotal_cents of a gross line, minor units; null counts as 0. Unread where line_total_cents is null.'),
    ('cart_items.line_total_cents',
     'Gross lines: line_subtotal_cents - line_discounts_cents, minor units. Null: a net line, whose total is its subtotal.')
  ) as said (name, comment);
end
$$;
