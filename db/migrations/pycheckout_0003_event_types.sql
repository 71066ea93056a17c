-- depends: pycheckout_0002_missing_columns
-- transactional: false
-- cost: none
--
-- Where the host's outbox uses enum types, they learn our values; the columns keep their types, because other writers
-- cast to them. A new value can be used only after the transaction that added it, hence this migration of its own.

do $$
declare
  v_value record;
begin
  -- a loop, because every value takes an ALTER TYPE
  for v_value in
    select type.oid::regtype as type, wanted.label
      from (values ('event_type', 'checkout.vendor_orders_created'), ('event_type', 'checkout.converted'),
                   ('event_type', 'vendor_order.canceled'), ('event_type', 'vendor_order.decided'), ('event_type', 'vendor_order.adjusted'),
                   ('event_type', 'vendor_order.expired'), ('event_type', 'vendor_order.extended'), ('event_type', 'order_line.released'),
                   ('event_type', 'order_line.fulfilled'), ('event_type', 'order_line.returned'), ('event_type', 'payment.changed'),
                   ('aggregate_type', 'checkout_group')) as wanted (column_name, label)
      join pg_attribute as attribute on attribute.attrelid = 'outbox_events'::regclass and attribute.attname = wanted.column_name
      join pg_type as type on type.oid = attribute.atttypid and type.typtype = 'e'
  loop
    execute format('alter type %s add value if not exists %L', v_value.type, v_value.label);
  end loop;
end
$$;
