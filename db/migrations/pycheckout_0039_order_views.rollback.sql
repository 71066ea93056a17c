do $$ begin perform checkout_migration_undo('pycheckout_0039_order_views'); end $$;
