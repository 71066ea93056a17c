-- checkout_version: which release is deployed.

create or replace function checkout_version()
returns jsonb
language plpgsql
stable
security definer
set search_path from current
as $$
begin
  return (
    select jsonb_build_object('version', release.version, 'hash', release.hash)
      from checkout_releases as release
     order by release.id desc
     limit 1
  );
end;
$$;

revoke execute on function checkout_version() from public;

comment on function checkout_version() is 'The deployed release and the SHA-256 of its function files: {"version": "0.1.0", "hash": "..."}.';
