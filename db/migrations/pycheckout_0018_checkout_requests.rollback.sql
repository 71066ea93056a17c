do $$ begin perform checkout_migration_undo('pycheckout_0018_checkout_requests'); end $$;
