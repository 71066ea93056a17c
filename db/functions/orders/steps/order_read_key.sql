-- order_read_key: checks the key of a change, and says what it is bound to: the whole request but its reason.

create or replace function order_read_key(change_key text, is_required boolean, request jsonb)
returns bytea
language plpgsql
stable
as $$
begin
  if order_read_key.change_key is null then
    if order_read_key.is_required then
      perform checkout_raise_invalid('change_key', 'is required where a quantity, a decision or an amount is given');
    end if;
    return null;
  elsif length(order_read_key.change_key) > 255 or order_read_key.change_key !~ '^[!-~]+$' collate "C" then
    perform checkout_raise_invalid('change_key', 'must be 1 to 255 visible ASCII characters');
  end if;
  return sha256(convert_to(checkout_canonical(order_read_key.request)::text, 'UTF8'));
end;
$$;

revoke execute on function order_read_key(text, boolean, jsonb) from public;

comment on function order_read_key(text, boolean, jsonb) is
  'Step of the order functions: the SHA-256 of a request, null without a key. Raises OC005 for a key that is missing or is not 1 to 255 visible ASCII characters.';
