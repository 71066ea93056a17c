do $$ begin perform checkout_migration_undo('pycheckout_0023_outbox_relay'); end $$;
