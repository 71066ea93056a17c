do $$ begin perform checkout_migration_undo('pycheckout_0019_ad_signing_keys'); end $$;
