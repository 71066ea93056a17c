do $$ begin perform checkout_migration_undo('pycheckout_0032_order_amounts'); end $$;
