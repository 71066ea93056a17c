do $$ begin perform checkout_migration_undo('pycheckout_0013_order_snapshot'); end $$;
