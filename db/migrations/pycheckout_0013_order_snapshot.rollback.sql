do $$
begin
  perform checkout_migration_pin();
  if exists (select from checkout_ledger where migration = 'pycheckout_0013_order_snapshot' and kind = 'renamed_column') then
    alter table vendor_orders rename column discounts_cents to discount_cents;
  end if;
end
$$;
do $$ begin perform checkout_migration_undo('pycheckout_0013_order_snapshot'); end $$;
