do $$ begin perform checkout_migration_undo('pycheckout_0015_checkout_requests'); end $$;
