do $$ begin perform checkout_migration_undo('pycheckout_0012_cart_confirmation'); end $$;
