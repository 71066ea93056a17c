-- inventory_adjust: adds to or takes from the available units of a product, once a key.

create or replace function inventory_adjust(product_id uuid, delta integer, change_key text default null)
returns inventory_levels
language plpgsql
security definer
set search_path from current
as $$
declare
  v_available bigint;
  v_level inventory_levels;
begin
  if inventory_adjust.delta is null then
    perform checkout_raise_invalid('delta', 'is required');
  elsif not (length(inventory_adjust.change_key) <= 255 and inventory_adjust.change_key ~ '^[!-~]+$' collate "C") then
    perform checkout_raise_invalid('change_key', 'must be 1 to 255 visible ASCII characters, or null');
  end if;
  v_available := inventory_lock_available(inventory_adjust.product_id);
  if inventory_was_changed(inventory_adjust.product_id, inventory_adjust.delta, inventory_adjust.change_key) then
    select level.* into v_level from inventory_levels as level where level.product_id = inventory_adjust.product_id;
    return v_level;
  end if;

  if v_available + inventory_adjust.delta < 0 then
    raise exception 'product % has % units, % cannot be taken', inventory_adjust.product_id, v_available, -inventory_adjust.delta::bigint
      using errcode = 'OC010',
            detail = jsonb_build_object('product_id', inventory_adjust.product_id, 'available', v_available, 'delta', inventory_adjust.delta),
            hint = 'Take no more than is available; what open orders hold is not.';
  end if;
  return inventory_write_available(inventory_adjust.product_id, v_available + inventory_adjust.delta);
end;
$$;

revoke execute on function inventory_adjust(uuid, integer, text) from public;

comment on function inventory_adjust(uuid, integer, text) is
  'Adds delta (which may be negative) to the available units of a product and returns its level. With a change_key (1 to 255 visible ASCII '
  'characters, of this product) it does so once: the same call again changes nothing and returns the level as it is then, until '
  'inventory_changes_purge() deletes the key; without one, a call whose answer was lost must not be repeated. Waits for checkouts of the '
  'product; locks its slots until the commit. Raises OC010 if fewer units are available, OC006 if the key is that of another delta, OC005 for a '
  'null delta, a malformed key or more units than its rows can hold, OC007 if a trigger keeps a row from being written.';
