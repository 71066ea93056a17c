-- inventory_adjust: adds to or takes from the available units of a product.

create or replace function inventory_adjust(product_id uuid, delta integer)
returns inventory_levels
language plpgsql
security definer
set search_path from current
as $$
declare
  v_available bigint;
begin
  if inventory_adjust.delta is null then
    perform checkout_raise_invalid('delta', 'is required');
  end if;
  v_available := inventory_lock_available(inventory_adjust.product_id);
  if v_available + inventory_adjust.delta < 0 then
    raise exception 'product % has % units, % cannot be taken', inventory_adjust.product_id, v_available, -inventory_adjust.delta::bigint
      using errcode = 'OC010',
            detail = jsonb_build_object('product_id', inventory_adjust.product_id, 'available', v_available, 'delta', inventory_adjust.delta),
            hint = 'Take no more than is available; what open orders hold is not.';
  end if;
  return inventory_write_available(inventory_adjust.product_id, v_available + inventory_adjust.delta);
end;
$$;

revoke execute on function inventory_adjust(uuid, integer) from public;

comment on function inventory_adjust(uuid, integer) is
  'Adds delta (which may be negative) to the available units of a product and returns its level. Waits for checkouts of the '
  'product; locks its slots until the commit. Raises OC010 if fewer units are available, OC005 for a null delta.';
