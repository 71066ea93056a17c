-- checkout_order_number: a number for a new order, drawn before the order is written. Those of a checkout that fails are lost: gaps
-- are the price of a sequence that nobody waits for.
--
-- Where the column is the host's there is no sequence of ours, and the column's own default gives the number.

do $do$
begin
  if to_regclass('checkout_order_number_seq') is not null then
    create or replace function checkout_order_number() returns bigint language sql volatile
    as $$select nextval('checkout_order_number_seq')$$;   -- one expression, which its caller takes in
  else
    create or replace function checkout_order_number() returns bigint language plpgsql volatile
    as $$
    declare
      v_default constant text := (
        select pg_get_expr(own.adbin, own.adrelid)
          from pg_attribute as attribute
          join pg_attrdef as own on own.adrelid = attribute.attrelid and own.adnum = attribute.attnum
         where attribute.attrelid = 'vendor_orders'::regclass and attribute.attname = 'order_number');
      v_number bigint;
    begin
      if v_default is not null then
        execute 'select (' || v_default || ')::bigint' into v_number;
      end if;
      return v_number;
    end;
    $$;
  end if;
end
$do$;

revoke execute on function checkout_order_number() from public;

comment on function checkout_order_number() is
  'Step of checkout_execute: the number of a new order, from checkout_order_number_seq or from the default of the host''s own column; null if that has none.';
