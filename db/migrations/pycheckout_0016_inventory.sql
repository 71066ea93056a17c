-- depends: pycheckout_0015_cart_confirmation
-- cost: moment inventory_items
--
-- A hot product's stock is spread over slots, so that checkouts do not queue on one row. The product's own row is slot
-- 0; while slots > 1 its available stock stands in inventory_slots.

do $$ begin perform checkout_migration_open(); perform checkout_migration_lock('inventory_items'); end $$;

alter table inventory_items add column if not exists slots integer not null default 1;

do $$
begin
  if not exists (select from pg_constraint where conrelid = 'inventory_items'::regclass and conname = 'inventory_items_split_stock_in_slots') then
    alter table inventory_items
      add constraint inventory_items_split_stock_in_slots check (slots = 1 or (slots > 1 and available_qty = 0)) not valid;
  end if;
end
$$;

-- The slots of a hot product would share a page, and those who write them that page's lock. Rows are few, space is cheap.
--
-- Every change of a slot counts its version up, so that the index has an entry for each: the first one from its end that is
-- alive is the slot. Where a snapshot is held open and no dead version can go, whoever looked for (product_id, slot) alone would
-- walk through all of them.
create table if not exists inventory_slots (
  product_id uuid not null,
  slot integer not null constraint inventory_slots_slot_positive check (slot > 0),
  available_qty integer not null constraint inventory_slots_available_not_negative check (available_qty >= 0),
  reserved_qty integer not null default 0 constraint inventory_slots_reserved_not_negative check (reserved_qty >= 0),
  updated_at timestamptz not null default now(),
  version bigint not null default 0,
  primary key (product_id, slot, version)
) with (fillfactor = 10);

create table if not exists inventory_holds (
  product_id uuid not null,
  line_item_id uuid not null,
  slot integer not null,
  qty integer not null constraint inventory_holds_qty_positive check (qty > 0),
  primary key (product_id, line_item_id, slot)
);

-- Filled by the migration of its name, when the earlier checkout has ended.
create table if not exists inventory_baseline (
  product_id uuid primary key,
  reserved_qty integer not null
);

-- Keys of stock changes, written in the transaction of the change that they belong to: whoever lost its answer makes it again
-- under the same key, and it counts once.
do $$
begin
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

create or replace view inventory_levels as
select item.product_id,
       item.available_qty + coalesce(slot.available_qty, 0) as available_qty,
       item.reserved_qty + coalesce(slot.reserved_qty, 0) as reserved_qty,
       item.slots,
       greatest(item.updated_at, slot.updated_at) as updated_at
  from inventory_items as item
  left join lateral (
    select sum(newest.available_qty) as available_qty, sum(newest.reserved_qty) as reserved_qty, max(newest.updated_at) as updated_at
      from generate_series(1, item.slots) as numbered (slot)
     cross join lateral (
       select own.available_qty, own.reserved_qty, own.updated_at
         from inventory_slots as own
        where own.product_id = item.product_id and own.slot = numbered.slot
        order by own.version desc
        limit 1
     ) as newest
     where item.slots > 1
  ) as slot on true;

comment on view inventory_levels is 'Stock of each product, summed over its slots.';
comment on column inventory_levels.product_id is 'The host''s product.';
comment on column inventory_levels.available_qty is 'Units that a checkout can still take.';
comment on column inventory_levels.reserved_qty is 'Units that open order lines hold.';
comment on column inventory_levels.slots is 'Rows that the stock is spread over; inventory_split() changes it.';
comment on column inventory_levels.updated_at is 'The last change in any slot.';

do $$
begin
  perform checkout_migration_close('pycheckout_0016_inventory');
  perform checkout_comment(said.name, said.comment) from (values
    ('inventory_items.slots', 'Number of slots that the stock is spread over; 1: all of it stands in this row. Set by inventory_split().'),
    ('inventory_slots', 'Stock of split products, one row a slot; slot 0 is the product''s row in inventory_items.'),
    ('inventory_slots.product_id', 'Product, an id of the host.'),
    ('inventory_slots.slot', 'Number of the slot, from 1 to the product''s slots.'),
    ('inventory_slots.available_qty', 'Units that a checkout can still take from this slot.'),
    ('inventory_slots.reserved_qty', 'Units that open order lines hold in this slot.'),
    ('inventory_slots.updated_at', 'When the stock of this slot last changed.'),
    ('inventory_slots.version', 'Counts the changes of this slot, so that its newest row version is found without the dead ones.'),
    ('inventory_holds', 'What an order line holds outside slot 0. A line without rows here holds all its stock in slot 0.'),
    ('inventory_holds.product_id', 'Product, an id of the host.'),
    ('inventory_holds.line_item_id', 'Order line that holds the units; the row goes when the line ends, or with inventory_split().'),
    ('inventory_holds.slot', 'Slot that they are held in.'),
    ('inventory_holds.qty', 'Units held there; the rows of a line come to its reserved_qty.'),
    ('inventory_baseline',
     'Reserved stock that the earlier system left, as the migration found it. Nothing changes it; checkout_audit() allows for it.'),
    ('inventory_baseline.product_id', 'Product, an id of the host.'),
    ('inventory_baseline.reserved_qty', 'Units that were reserved.'),
    ('inventory_changes', 'Changes of stock that were made under a key, written by inventory_adjust(). inventory_changes_purge() removes old ones.'),
    ('inventory_changes.product_id', 'Product, an id of the host; the same key of another product is another key.'),
    ('inventory_changes.change_key', 'Key that the caller chose: 1 to 255 visible ASCII characters.'),
    ('inventory_changes.delta', 'Units that were added; below 0: taken.'),
    ('inventory_changes.created_at', 'When the change was made; inventory_changes_purge() goes by it.')
  ) as said (name, comment);
  -- a copy of what inventory_items said: no loss
  update checkout_ledger set definition = 'false' where kind = 'table' and name = 'inventory_baseline';
end
$$;
