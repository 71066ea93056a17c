do $$ begin perform checkout_migration_undo('pycheckout_0006_watch_checkout_groups'); end $$;
