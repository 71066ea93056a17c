do $$ begin perform checkout_migration_undo('pycheckout_0038_order_views'); end $$;
