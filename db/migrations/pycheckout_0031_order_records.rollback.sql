do $$ begin perform checkout_migration_undo('pycheckout_0031_order_records'); end $$;
