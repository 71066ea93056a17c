do $$ begin perform checkout_migration_undo('pycheckout_0030_order_amounts'); end $$;
