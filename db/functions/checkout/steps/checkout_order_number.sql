-- checkout_order_number: a number for a new order, drawn before the order is written. Those of a checkout that fails are lost: gaps
-- are the price of a sequence that nobody waits for.
--
-- Where the column is the host's, its own default gives the number: what it is, is known when the functions are deployed.

do $do$
declare
  v_number text := $$nextval('checkout_order_number_seq')$$;
begin
  if to_regclass('checkout_order_number_seq') is null then
    v_number := (select pg_get_expr(own.adbin, own.adrelid)
                   from pg_attribute as attribute
                   join pg_attrdef as own on own.adrelid = attribute.attrelid and own.adnum = attribute.attnum
                  where attribute.attrelid = 'vendor_orders'::regclass and attribute.attname = 'order_number');
  end if;
  -- one expression in SQL, which its caller takes in
  execute format('create or replace function checkout_order_number() returns bigint language sql volatile as %L',
                 'select (' || coalesce(v_number, 'null') || ')::bigint');
end
$do$;

revoke execute on function checkout_order_number() from public;

comment on function checkout_order_number() is
  'Step of checkout_execute: the number of a new order, from checkout_order_number_seq or from the default of the host''s own column; null if that has none.';
