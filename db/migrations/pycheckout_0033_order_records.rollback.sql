do $$ begin perform checkout_migration_undo('pycheckout_0033_order_records'); end $$;
