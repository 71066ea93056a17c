-- checkout_order_numbers: numbers for new orders, drawn before they are written. Those of a checkout that fails are lost: gaps
-- are the price of a sequence that nobody waits for.
--
-- Where the column is the host's, its own default gives them: what it is, is known when the functions are deployed.

do $do$
declare
  v_default text;
begin
  if to_regclass('checkout_order_number_seq') is not null then
    create or replace function checkout_order_numbers(orders integer) returns bigint[] language plpgsql volatile
    as $$
    declare
      v_numbers bigint[];
    begin
      -- a loop: for a few orders it takes a tenth of a query's time
      for i in 1 .. checkout_order_numbers.orders loop
        v_numbers := array_append(v_numbers, nextval('checkout_order_number_seq'));
      end loop;
      return v_numbers;
    end;
    $$;
  else
    select pg_get_expr(own.adbin, own.adrelid) into v_default
      from pg_attribute as attribute
      join pg_attrdef as own on own.adrelid = attribute.attrelid and own.adnum = attribute.attnum
     where attribute.attrelid = 'vendor_orders'::regclass and attribute.attname = 'order_number';
    execute format($create$
      create or replace function checkout_order_numbers(orders integer) returns bigint[] language plpgsql volatile
      as $$
      begin
        return array(select (%s)::bigint from generate_series(1, checkout_order_numbers.orders));
      end;
      $$
    $create$, coalesce(v_default, 'null'));
  end if;
end
$do$;

revoke execute on function checkout_order_numbers(integer) from public;

comment on function checkout_order_numbers(integer) is
  'Step of checkout_execute: that many new order numbers, unique in the schema; those of the column''s own default where it is the host''s, null where it has none.';
