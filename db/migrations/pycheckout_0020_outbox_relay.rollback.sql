do $$ begin perform checkout_migration_undo('pycheckout_0020_outbox_relay'); end $$;
