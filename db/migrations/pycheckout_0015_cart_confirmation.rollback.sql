do $$ begin perform checkout_migration_undo('pycheckout_0015_cart_confirmation'); end $$;
