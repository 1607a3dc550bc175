-- +goose Up
alter table orders add column placed timestamptz not null default now();

-- +goose Down
alter table orders drop column placed;
