-- depends: pycheckout_0029_views
-- cost: none
--
-- Keys of stock changes, written in the transaction of the change that they belong to: whoever lost its answer makes it again
-- under the same key, and it counts once.

do $$
begin
  perform checkout_migration_open();

  if to_regclass('inventory_changes') is null then
    create table inventory_changes (
      product_id uuid not null,
      change_key text collate "C" not null,
      delta integer not null,
      created_at timestamptz not null default now(),
      primary key (product_id, change_key)
    );
    create index idx_inventory_changes_created_at on inventory_changes (created_at);   -- for the purge alone
  end if;
end
$$;

do $$
begin
  perform checkout_migration_close('pycheckout_0030_inventory_changes');
  perform checkout_comment(said.name, said.comment) from (values
    ('inventory_changes', 'Changes of stock that were made under a key, written by inventory_adjust(). inventory_changes_purge() removes old ones.'),
    ('inventory_changes.product_id', 'Product, an id of the host; the same key of another product is another key.'),
    ('inventory_changes.change_key', 'Key that the caller chose: 1 to 255 visible ASCII characters.'),
    ('inventory_changes.delta', 'Units that were added; below 0: taken.'),
    ('inventory_changes.created_at', 'When the change was made; inventory_changes_purge() goes by it.')
  ) as said (name, comment);
end
$$;
