-- depends: pycheckout_0014_line_snapshot
-- cost: moment cart_records
--
-- The cart records what the checkout confirmed, before and after conversion the source of truth.

do $$ begin perform checkout_migration_open(); perform checkout_migration_lock('cart_records'); end $$;

alter table cart_records add column if not exists payment_method payment_method;
alter table cart_records add column if not exists shipping_line jsonb;
alter table cart_records add column if not exists converted_at timestamptz;

do $$
begin
  perform checkout_migration_close('pycheckout_0015_cart_confirmation');
  perform checkout_comment(said.name, said.comment) from (values
    ('cart_records.payment_method', 'Method that the checkout confirmed; null before.'),
    ('cart_records.shipping_line',
     'Shipping selection that the checkout confirmed, in no total: {code, title, price_cents}. Null before, and where there is none.'),
    ('cart_records.converted_at', 'When the checkout converted the cart; null before, and on carts that the earlier system converted.')
  ) as said (name, comment);
end
$$;
